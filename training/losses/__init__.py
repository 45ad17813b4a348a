"""What is minimised: matching, distillation and the relations that it compares."""

"""Training of the students: needs torch, never shipped with the tool."""

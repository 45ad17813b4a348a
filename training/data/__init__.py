"""What training learns from: the corpus, the cache of prepared clips, and what is drawn from it."""

"""What random numbers are drawn for: the first number of the seed of every stream of them.

numpy pads the numbers that a stream is seeded with by zeros: (seed, epoch) alone would be the same stream as
(seed, epoch, 0), and an epoch's order would be drawn from the numbers of its first pair.
"""

CLIP_ORDER = 1  # then seed, epoch: of clips in memory
SHARD_ORDER = 2  # then seed, epoch: of shards, and of clips in the buffer
PAIR = 3  # then seed, epoch, index
FIXED_PAIR = 4  # then seed, index: to validate on
STRETCH = 5  # then seed: of train clips, to calibrate int8 graphs on

"""Pictures and sound while they come: a monitor for programs, and `avsync watch`."""

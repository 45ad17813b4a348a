"""The scan of many files: in processes of their own, on one machine or a cluster, resumable at any moment.

`run.scan_files` is the story. Not to be confused with `avsync_cli.offsets`, the scan of offsets in one file.
"""

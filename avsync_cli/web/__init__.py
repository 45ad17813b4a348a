"""`avsync web`: a page on this machine for people who do not use terminals.

`command` has the options, `server` runs until it is stopped, `door` lets in whom the address was shown to,
`app` answers, `desk` has the files checked one after the other, in a worker of `avsync_cli.batch`.
"""

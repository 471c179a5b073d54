"""`python -m voxport.cli` is `voxport`."""

from voxport.cli.root import main

main()

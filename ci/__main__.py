"""`python -P -m ci`: the console command, where the script is not on the path."""

from ci.cli import main

main()

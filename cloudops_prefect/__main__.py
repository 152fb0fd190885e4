"""`python -m cloudops_prefect` is `cloudops`."""

from cloudops_prefect.cli import main

main()

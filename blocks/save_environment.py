"""Saves an example of a command environment; saving it again changes nothing."""

from cloudops_prefect.blocks import CommandEnvironment

if __name__ == "__main__":
    CommandEnvironment(variables={"DEPLOY_STAGE": "test"}).save("example", overwrite=True)

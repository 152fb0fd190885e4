"""The plan that `cloudops init` writes."""

STARTER = """\
# A plan: commands, and what waits for what.
#
#   cloudops validate {file}      check it
#   cloudops run --dry-run {file} see what would run
#   cloudops run {file}           run it
#   cloudops graph {file}         draw it
#
# For completion in your editor: cloudops schema > cloudops.schema.json, and as the first line here
# yaml-language-server: $schema=cloudops.schema.json

description: My first plan

# Without `needs` anywhere, the commands run one after the other. To run all at once:
# strategy: {{type: parallel, max_concurrency: 4}}

# To find its runs again: cloudops list --tag team=platform
metadata:
  tags:
    team: platform

commands:
  # A line of bash.
  - name: check
    run: echo "checking on $(hostname)"

  # A program with its arguments, without a shell between.
  - name: build
    exec: [echo, building, "version 1.0"]
    needs: check

  # Runs beside `build`: both wait for `check` only.
  - name: test
    run: |
      echo "testing in $STAGE"
      sleep 1
      echo "all is well"
    needs: check
    env:
      STAGE: staging # plain values only; secrets come from blocks: env_from
    timeout_ms: 30000

  - name: deploy
    run: echo "deployed"
    needs: [build, test] # waits for both, and does not run if one of them fails
    # env_from: [command-environment/deploy] # variables and secrets, read where it runs

  # Other kinds of commands:
  # - name: migrate
  #   script: ./migrate.sh # its first line says what runs it; it need not be executable
  #   working_dir: /srv/shop
  # - name: instances
  #   aws: ec2 describe-instances
"""

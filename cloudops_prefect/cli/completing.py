"""What makes shells complete the command line."""

from typing import Literal

from cloudops_prefect.cli.root import app

Shell = Literal["bash", "zsh", "fish"]

# What is generated for zsh only defines a function. A file in $fpath is run when something is to be
# completed, and has to complete it then; what `eval` runs has to say what the function is for.
_ZSH = """
if [[ $funcstack[1] == _cloudops ]]; then
  _cyclopts_cloudops "$@"
else
  compdef _cyclopts_cloudops cloudops
fi
"""
# Fish offers the files of the directory for every word, unless it is told not to.
_WITH_FILES = "run validate graph deploy init exec shell aws"
_FISH = f"complete -c cloudops -f -n 'not __fish_seen_subcommand_from {_WITH_FILES}'\n"
_AFTER: dict[Shell, str] = {"zsh": _ZSH, "fish": _FISH}


def script(shell: Shell) -> str:
    """Returns what a shell runs to complete `cloudops` from then on."""
    generated = app.generate_completion(prog_name="cloudops", shell=shell)
    return f"{generated.rstrip()}\n{_AFTER.get(shell, '')}".rstrip()

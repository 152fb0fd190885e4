"""Shell syntax in texts that no shell reads: variables, `~`, file patterns and operators.

Many programs give `$`, `|` and the like a meaning of their own: awk, jq, `sh -c`, JMESPath. What is
likely meant for one of them is not reported.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NAME = r"[A-Za-z_]\w*"
# `${NAME}`, and the ways in which a shell changes the value. `${AWS::Region}` and `${aws:username}`
# belong to others, and `${{ }}` is a reference.
_BRACED = rf"\$\{{#?{_NAME}(?:(?::?[-+=?]|: ?-?\d|[#%/^\[]|,)[^}}]{{0,200}})?\}}"
_UPPER = r"[A-Z_][A-Z\d_]+"
_TYPED = re.compile(rf"(?<![\\$])(?:{_BRACED}|\${_NAME}|\$\([^()]*\)?|`[^`]+`?)")
# Without quotes to go by, a name in small letters counts where it is a whole value only: `$set` is
# MongoDB's.
_LISTED = re.compile(
    rf"(?<![\\$])(?:{_BRACED}|\${_UPPER}\b|(?:^|(?<=[=/:]))\${_NAME}(?=$|/)|\$\([^()]+\)|^`[^`]+`$)"
)
_WHOLE = re.compile(rf"(?<![^=])(?:\${_UPPER}|\$\{{{_UPPER}\}})(?=$|/)")
_HOME = re.compile(r"(?<![^=])~(?=$|/)|^~[a-z_][\w-]*(?=/)")
_FILE = r"[\w./~$\0][^|;&<>()]*"
_OPERATOR = re.compile(
    rf"\|\|?|\|&|&&?|;;?|(?:\d?|&)>{{1,2}}(?:[|&]?{_FILE}|&-)?|\d?<{{1,3}}(?:{_FILE})?|[<>]\(.*"
)
_WITHIN_WORD = re.compile(r"\|\|?|&&|;")
_BRACES = re.compile(r"\{[^{}\s]*(?:,|\.\.)[^{}\s]*\}")
_FILES = re.compile(r"(?=.*[./])(?:[\w.~$-]*/)*[\w.$-]*\*[\w.*/$-]*")
_ASSIGNMENT = re.compile(rf"{_NAME}\+?=")

_MASK = "\0"
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.", re.DOTALL)

_SHELLS = _words("ash bash busybox csh dash fish ksh mksh sh tcsh zsh")
_SHELL_TEXT_OPTION = re.compile(r"-[A-Za-z]*c")
# What follows these is read by another shell or interpreter.
_EVALUATORS = _words(
    "at batch cmd envsubst entr expect hyperfine mosh parallel pdsh powershell pwsh runuser screen"
    " script ssh su tmux watch wsl xonsh"
)
# These read arguments in languages that have `$`, `|`, `>` or backticks.
_LANGUAGES = _words(
    "ansible awk bc dasel dc egrep emacs fgrep gawk gh gmake gojq grep gsed jp jq make mawk mongo"
    " mongosh nawk ninja osascript pip pip3 rg sed tclsh vim xmllint xsltproc yq"
)
# Of these it is `$(NAME)` only.
_BUILDERS = _words("gmake make ninja")
_TAKES_OPERATORS = _words("[ expr fd fdfind find test tmux")
_TAKES_PATTERNS = _LANGUAGES | _words(
    "7z apt apt-get aws brew cargo curl dnf docker dpkg echo expr fd fdfind find git kubectl locate"
    " npm npx podman printf redis-cli rsync systemctl unzip wget yum zip"
)
_TAKES_FILES = _words(
    "bzip2 cat chgrp chmod chown cmp cp diff du file gunzip gzip head install less ln ls md5sum"
    " mkdir more mv rm rmdir sha1sum sha256sum sha512sum shred sort stat tac tail tar touch wc xz"
    " zcat"
)
_BUILTINS = _words(
    ". [[ alias case cd eval export for function if popd pushd set source trap ulimit umask unset"
    " until while"
)
# The values of these are expressions, templates, or run elsewhere.
_CODE_OPTIONS = _words(
    "--assume-role-policy-document --buildspec --buildspec-override --cli-input-json --command"
    " --container-overrides --definition --eval --event-pattern --exec --expression"
    " --filter-pattern --format --jq --overrides --parameters --policy --policy-document --query"
    " --request-mapping-template --request-templates --response-mapping-template"
    " --response-templates --template --template-body --user-data"
)
_CODE_FLAG = re.compile(r"-[A-Za-z]*[cer]")
# Programs run these, or give `$` and `~` a meaning there.
_CODE_VARIABLE = re.compile(
    r"(?i)cmd|command|editor|expr|filter|flags|format|lessopen|pager|pattern|prompt|query|regex"
    r"|script|sql|template|^(?:bash_)?env$|^ps[0-4]$"
)
_EXPANDING_VARIABLES = ("ANSIBLE_", "AWS_", "PREFECT_")
_PATTERN_OPTION = re.compile(
    r"-[IX]$|-.*(?:clude|filter|glob|hide|ignore|match|name|path|pattern|regex|wild)"
)
_SEPARATOR_OPTION = re.compile(r"-[dtsF]$|-.*(?:delim|sep)")


class Word(NamedTuple):
    """One argument.

    Attributes:
        text: What the program gets.
        live: The same, with a mask over the characters that a shell would take as they are.
    """

    text: str
    live: str


class Found(NamedTuple):
    """Shell syntax in one word of a command.

    Attributes:
        position: Which word.
        text: What a shell would act upon.
        kind: Whether that is in an argument, or the program is none.
    """

    position: int
    text: str
    kind: Literal["argument", "assignment", "builtin"] = "argument"


def typed_words(text: str) -> list[Word]:
    """Split a text as a shell does; return nothing if its quotes don't match."""
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    masked = re.split(r"[ \t\r\n]+", _QUOTED.sub(_mask, text).strip(" \t\r\n"))
    return [Word(*both) for both in zip(words, masked, strict=True)] if words else []


def listed_words(texts: Sequence[str]) -> list[Word]:
    """Return words of which nobody can tell what would be in quotes."""
    return [Word(text, text) for text in texts]


def expansions(text: str, *, listed: bool = False) -> list[str]:
    """Return the variables, commands and home directories that a shell would replace in a text."""
    found = (_LISTED if listed else _TYPED).finditer(text)
    home = _HOME.search(text)
    return [*(_short(match[0]) for match in found), *([home[0]] if home else [])]


def path_expansions(text: str) -> list[str]:
    """Return what a shell would replace in a path: also a file pattern."""
    return expansions(text) or ([text] if re.search("[*?]", text) else [])


def value_expansions(name: str, value: str) -> list[str]:
    """Return what a shell would replace in the value of a variable.

    A variable whose name says that its value is a command or a pattern is left out.
    """
    if _CODE_VARIABLE.search(name):
        return []
    found = [_short(match[0]) for match in _LISTED.finditer(value)]
    expands_itself = name.startswith(_EXPANDING_VARIABLES)
    home = None if expands_itself else re.search(r"(?:^|(?<=:))~(?=$|[/:])", value)
    return [*found, *([home[0]] if home else [])]


def shell_syntax(words: Sequence[Word], *, typed: bool) -> Iterator[Found]:
    """Yield what a shell would act upon, of a command that is started without one.

    Args:
        words: The program and its arguments.
        typed: They were split from one text, in which quotes tell what is meant as it is.
    """
    if not words:
        return
    program = words[0].text
    if _ASSIGNMENT.match(words[0].live) and len(words) > 1:
        yield Found(0, f"{program.partition('=')[0]}=…", "assignment")
    elif program in _BUILTINS:
        yield Found(0, program, "builtin")
    else:
        yield from _in_arguments(words, typed=typed)


def _in_arguments(words: Sequence[Word], *, typed: bool) -> Iterator[Found]:
    in_language = after_shell = has_argument = False
    for index, word in enumerate(words):
        before = words[index - 1].text if index else ""
        if not _is_code(word.text, before):
            program = _base_name(words[0].text)
            reading = _Reading(program, before, typed, in_language, is_first=not has_argument)
            yield from (Found(index, text) for text in reading.found_in(word))
        name = _base_name(word.text)
        if name in _EVALUATORS or (after_shell and _SHELL_TEXT_OPTION.fullmatch(word.text)):
            return
        after_shell = after_shell or name in _SHELLS
        in_language = in_language or name in _LANGUAGES
        has_argument = has_argument or (index > 0 and not word.text.startswith("-"))


@dataclass(frozen=True, slots=True)
class _Reading:
    """How to look at a word.

    Attributes:
        program: What gets it.
        before: The word before it.
        typed: Whether quotes tell what is meant as it is.
        in_language: Whether a program reads it in a language of its own.
        is_first: Whether it is the first argument that is no option.
    """

    program: str
    before: str
    typed: bool
    in_language: bool
    is_first: bool

    def found_in(self, word: Word) -> list[str]:
        """Return what a shell would act upon in a word."""
        found = [*self._expansions(word.live), *self._operators(word.live)]
        return found or ([word.text] if self._has_pattern(word.live) else [])

    def _expansions(self, live: str) -> list[str]:
        if self.typed or not self.in_language:
            return expansions(live, listed=not self.typed)
        return [match[0] for match in (_WHOLE.search(live), _HOME.match(live)) if match]

    def _operators(self, live: str) -> list[str]:
        if self.program in _TAKES_OPERATORS:
            return [live] if live in {"|", "||", "&&"} and self.program != "expr" else []
        if _OPERATOR.fullmatch(live):
            return [] if not self.typed and self._is_meant() else [live.replace(_MASK, "…")]
        if self.typed and not self.in_language and "://" not in live:
            return [match[0] for match in [_WITHIN_WORD.search(live)] if match]
        return []

    def _is_meant(self) -> bool:
        """Tell an operator in a list that is a separator, or what grep looks for."""
        is_separator = self.program == "tr" or _SEPARATOR_OPTION.match(self.before)
        is_expression = self.in_language and self.is_first and self.program not in _BUILDERS
        return bool(is_separator or is_expression)

    def _has_pattern(self, live: str) -> bool:
        if live.startswith("-") or _PATTERN_OPTION.match(self.before) or ":" in live:
            return False
        if self.program in _TAKES_FILES:
            return bool(re.search("[*?]", live) or (self.typed and _BRACES.search(live)))
        is_local = self.program == "aws" and not self.before.startswith("-")
        takes_files = self.typed and (is_local or self.program not in _TAKES_PATTERNS)
        return takes_files and not self.in_language and _FILES.fullmatch(live) is not None


def _is_code(text: str, before: str) -> bool:
    """Tell the value of an option that takes an expression, and templates."""
    option = text.partition("=")[0]
    return (
        before in _CODE_OPTIONS
        or (option != text and option in _CODE_OPTIONS)
        or ("{{" in text and "}}" in text)
        or (" " in text and _CODE_FLAG.fullmatch(before) is not None)
    )


def _base_name(program: str) -> str:
    return program.rpartition("/")[2]


def _short(found: str) -> str:
    """Return what was found as it is shown: a command without its words."""
    if found.startswith("$("):
        return "$(…)"
    return "`…`" if found.startswith("`") else found


def _mask(quoted: re.Match[str]) -> str:
    if not quoted[0].startswith('"'):
        return _MASK * len(quoted[0])
    # Within double quotes a shell still replaces variables and commands.
    inner = re.sub(r"\\.", _MASK * 2, quoted[0], flags=re.DOTALL)
    kept = [_MASK] * len(inner)
    for found in _TYPED.finditer(inner):
        kept[found.start() : found.end()] = re.sub(r"[\s|&;<>*?~,]", _MASK, found[0])
    return "".join(kept)

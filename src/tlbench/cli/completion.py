"""Tab in bash, zsh and fish: a script for each, and what it asks for. No TensorFlow.

What is offered may come from a disk or from somebody else's YAML. It is data: no shell evaluates it, and what
it puts on the line is quoted. Where nothing is offered the shell completes files by itself.
"""

import os
import re
import shlex

from tlbench.base.errors import ConfigError, suggest
from tlbench.cli import verbs

# A line typed so far -> the lines of `tlbench -sc query=SHELL`, each one word.
SCRIPTS = {
    "bash": r"""_tlbench() {
    mapfile -t COMPREPLY < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" \
        COMP_WORDBREAKS="$COMP_WORDBREAKS" tlbench -sc query=bash 2>/dev/null)
}
complete -o nospace -o default -F _tlbench tlbench
""",
    "zsh": r"""(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
_tlbench() {
    local -a offered
    offered=("${(@f)$(COMP_LINE="${(j: :)words[1,CURRENT]}" tlbench -sc query=zsh 2>/dev/null)}")
    if [[ -n $offered[1] ]]; then
        compadd -S '' -a offered
    else
        compset -P '*='
        _files
    fi
}
compdef _tlbench tlbench
""",
    "fish": r"""function __tlbench_offered
    set -lx COMP_LINE (commandline -cp)
    tlbench -sc query=fish 2>/dev/null
end
complete -c tlbench -a '(__tlbench_offered)'
""",
}


def answer(words: list[str]) -> list[str]:
    """The lines of `-sc install=SHELL`, or of `-sc query=SHELL` for the line in COMP_LINE."""
    request, _, shell = words[0].partition("=") if words else ("", "", "")
    if request not in ("install", "query") or shell not in SCRIPTS:
        hint = suggest(shell, SCRIPTS)
        raise ConfigError(f"No completion for '{' '.join(words)}'. {hint} As in: -sc install=bash")
    if request == "install":
        return [SCRIPTS[shell].rstrip()]
    typed, quote = split(os.environ.get("COMP_LINE", ""))
    current = typed[-1]
    found = [w for w in offered(typed[1:]) if w.startswith(current) and w.isprintable()]
    if shell != "bash":  # the others quote what they put on the line
        return found
    return [] if quote else [_escaped(word[_kept(current) :]) for word in found]


def split(line: str) -> tuple[list[str], str]:
    """The words of a line that is being typed, and the quote that is open at its end.

    The last word is the one under the cursor, which may be empty.
    """
    for quote in ("", "'", '"'):
        try:
            # A stand-in for what is still to come: the last word is there, even when it is empty.
            words = shlex.split(f"{line}x{quote}")
        except ValueError:
            continue
        return [*words[:-1], words[-1][:-1]], quote
    return [""], ""


def offered(words: list[str]) -> list[str]:
    """What may stand in place of the last of the words after `tlbench`."""
    verb, *rest = words or [""]
    if not rest:
        return list(verbs.NAMES)
    return verbs.load(verb).candidates(rest) if verb in verbs.NAMES else []


def _kept(current: str) -> int:
    """Characters of the word that bash keeps: it completes what follows one of its own word breaks."""
    breaks = set(os.environ.get("COMP_WORDBREAKS", "")) & set("=:")
    return max((current.rfind(character) + 1 for character in breaks), default=0)


def _escaped(text: str) -> str:
    """Text as one word of bash."""
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", text)

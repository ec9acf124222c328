"""``usercontainer completion``: prints the script that has a shell complete our command lines."""

from __future__ import annotations

from usercontainerd.base.errors import HostError, InvalidArgument
from usercontainerd.base.programs import list_places
from usercontainerd.cli.options import Option, Verb
from usercontainerd.cli.output import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.cli.call import Call

# Each shell's script, and the directory below share/ where it is installed.
SCRIPTS = {
    "bash": ("usercontainer.bash", "bash-completion/completions"),
    "fish": ("usercontainer.fish", "fish/vendor_completions.d"),
    "zsh": ("_usercontainer", "zsh/site-functions"),
}
COMPLETION = Verb(
    "completion",
    "bash | zsh | fish",
    "Print the script for a shell's completion",
    (Option("-f, --file FILE", "write it to a file"),),
    fewest=1,
    most=1,
    details="A package has put the scripts where shells look for them. Elsewhere, in bash:\n"
    "    source <(usercontainer completion bash)",
)


def run_completion(call: Call) -> int:
    """Print or write it."""
    shell = call.words[0]
    if shell not in SCRIPTS:
        raise InvalidArgument(f'there is no script for "{shell}"', hint=f"possible are {', '.join(SCRIPTS)}")
    text = read_script(shell)
    path = call.options.value("file")
    if path is None:
        write_output(text)
        return 0
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InvalidArgument(f"cannot write the script: {error.strerror}", where=path) from error
    return 0


def read_script(shell: str) -> str:
    """Return the script of this very copy: a checkout's, a wheel's, else that of the prefix. Raises ``HostError``."""
    name, directory = SCRIPTS[shell]
    places = [f"{place}/{name}" for place in list_places("completions", f"share/{directory}")]
    for path in places:
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise HostError(f"cannot read the script: {error.strerror}", where=path) from error
    raise HostError(
        f"the script for {shell} is not installed", where=places[-1], hint="reinstall the package"
    )


VERBS = {"completion": (COMPLETION, run_completion)}

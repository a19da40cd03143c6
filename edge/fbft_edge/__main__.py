"""`python -m fbft_edge` is `fbft-edge`."""

from fbft_edge.cli.exit_status import leave
from fbft_edge.cli.main import main


def console() -> None:
    """The command `fbft-edge`."""
    leave(main())


if __name__ == "__main__":
    console()

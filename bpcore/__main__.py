"""``python -m bpcore``: the same as the command ``bpcore``."""

from bpcore.cli import main

if __name__ == "__main__":
    main()

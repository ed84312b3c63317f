"""The command `uvstore`: the program that the package brings along."""

import os
import subprocess
import sys

from uvstore.hook import program


def main():
    argv = [program()] + sys.argv[1:]
    try:
        if os.name != "nt":
            os.execv(argv[0], argv)
        # Windows has no exec: a program that it starts so would leave the shell's prompt behind.
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the console's Ctrl-C reaches the program by itself
        return subprocess.call(argv)
    except OSError as e:
        print("uvstore: '%s' cannot be started: %s" % (argv[0], e), file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())

import sys

from transferbench.cli.main import main

sys.exit(main())

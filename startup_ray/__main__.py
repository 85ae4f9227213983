import sys

from startup_ray.cli import main

sys.exit(main())

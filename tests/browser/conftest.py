import sys
from pathlib import Path

# The fabricated run lies with the tests one folder up, which pytest puts on the path only for them.
sys.path.insert(0, str(Path(__file__).parents[1]))

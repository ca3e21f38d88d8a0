"""Score one video: python scripts/score_video.py VIDEO "instruction" [--json curve.json]"""

from topreward.cli import score_main

if __name__ == "__main__":
    score_main()

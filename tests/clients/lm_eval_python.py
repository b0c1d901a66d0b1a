"""EleutherAI's evaluation harness, local-chat-completions, against a starter college: `python lm_eval_python.py URL`.

Runs in an environment that has lm-eval[api], see `install`, on a task of our own beside this file; fetches nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TASK = Path(__file__).resolve().with_name("lm_eval_task")
MODEL = "coe-smollm2-general:q4"


def main(url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "lm_eval", "run", "--model", "local-chat-completions",
            "--model_args", f"model={MODEL},base_url={url}/v1/chat/completions,num_concurrent=2,max_retries=2",
            "--include_path", str(TASK), "--tasks", "coe_capitals", "--apply_chat_template", "--output_path", folder,
        ]  # fmt: skip
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": folder, "OPENAI_API_KEY": "none"}
        subprocess.run(command, cwd=TASK, env=os.environ | offline, check=True)
        [results] = Path(folder).rglob("results_*.json")
        said = json.loads(results.read_text())
    score = said["results"]["coe_capitals"]["exact_match,none"]
    if said["n-samples"]["coe_capitals"]["effective"] != 5 or not 0 <= score <= 1:
        raise SystemExit(f"FAILED: five questions and a score, not {said['results']}")
    sys.stdout.write(f"ok: five questions asked and scored, exact match {score:g}\n")


if __name__ == "__main__":
    main(sys.argv[1])

"""A real vLLM server on the CPU, started and killed by tests."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from sdpo_solve.engines._reaper import Reaper

_STARTS_S = 240


class VllmServer:
    """One on a free port of this machine; `start` again after `kill` takes the same port."""

    def __init__(self, model_dir: Path, log: Path, dtype: str, *arguments: str) -> None:
        self.model_dir, self.port = model_dir, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_dir)),
            *("--host", "127.0.0.1", "--port", str(self.port), "--dtype", dtype, "--enforce-eager"),
            *("--max-num-seqs", "8", "--enable-lora", "--max-loras", "2", "--max-lora-rank", "16"),
            *("--logprobs-mode", "processed_logprobs", *arguments),
        ]
        self._reaper: Reaper | None = None

    def start(self) -> "VllmServer":
        """Returns when it answers."""
        self._reaper = Reaper()
        environment = {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
        }
        with self._reaper.marking(), self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _STARTS_S
        while not self._answers():
            assert process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < until, f"no answer: {self._log.read_text()[-3000:]}"
            time.sleep(0.5)
        self._process = process
        return self

    def kill(self) -> None:
        """End its processes at once. Safe to call twice."""
        if self._reaper is not None:
            self._reaper.close()
            self._process.wait()
            self._reaper = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

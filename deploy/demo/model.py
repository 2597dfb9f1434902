"""Serve a GGUF model with llama.cpp on a free port of loopback: `python model.py MODEL TEMPLATE`, in the demo's venv.

Prints ``listening http://127.0.0.1:PORT`` once it answers; ends with its parent's pipe.
"""

import sys

import xllamacpp


def main() -> None:
    """Serve until standard input ends."""
    model, template = sys.argv[1:3]
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"gemma3-270m"}
    params.n_ctx = 4096
    params.n_parallel = 2
    params.use_jinja = True
    with open(template, encoding="utf-8") as file:
        params.chat_template = file.read()
    params.antiprompt = ["User:"]
    params.ui = False
    server = xllamacpp.Server(params)
    print(f"listening {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

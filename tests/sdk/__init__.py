"""The official openai client against the running sidecar: what its users see is what OpenAI would show."""

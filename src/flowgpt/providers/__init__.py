"""What can answer: the contract (`base`), FlowGPT itself (`flowgpt`)."""

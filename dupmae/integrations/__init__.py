"""What other tools reach an index by, each an extra: MCP, LangChain, LlamaIndex and Haystack."""

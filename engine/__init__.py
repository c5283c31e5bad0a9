"""The engine: builds an index folder and answers from it with a proof."""

"""`python cli.py serve`: indexes over HTTP. Needs the extra `[serve]`; nothing else imports it."""

from dotenv import dotenv_values
from markdown_it import MarkdownIt

for key, value in dotenv_values("settings.env").items():
    print(MarkdownIt().renderInline(f"**{key}** {value}"))

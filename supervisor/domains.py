"""The domains the shipped model tells apart, and the one that means "anybody"."""

DOMAINS = (
    "biology",
    "business",
    "chemistry",
    "coding",
    "cs",
    "economics",
    "engineering",
    "general",
    "health",
    "history",
    "law",
    "math",
    "philosophy",
    "physics",
    "psychology",
    "python",
    "web",
)

GENERAL = "general"

"""The project's database: SQLite in the home folder."""

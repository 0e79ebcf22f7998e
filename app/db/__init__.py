"""The database: models, sessions, and all the SQL of Headgate, one file per noun."""

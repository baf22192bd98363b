"""Following jobs live: one thread polls, pure functions keep the state, a widget or a picture shows it."""

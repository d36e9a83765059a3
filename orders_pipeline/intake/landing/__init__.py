"""Landing: where clients put their files, which of them are new, and what is left alone there."""

"""Virtual time: when every action of a program would run on given devices and links, without or beside its tensors."""

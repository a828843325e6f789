"""Other processors under qemu-user: the same file on another instruction set."""

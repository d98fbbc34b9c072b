package devstack

// anyPort lets the kernel choose.
const anyPort = "127.0.0.1:0"

// Ties this process to another one: it ends when that one ends, however that one ends.
#pragma once

namespace tie {

// Leaves the caller's process group and its list of children, and watches `process`, which must be the parent. On
// Linux the program goes on in a child of its own: a `wait()` for any child, in a program that asked for a store,
// must not meet the server.
void to(long process);

} // namespace tie

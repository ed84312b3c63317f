// mingw-w64 has this file in lower case; Windows does not care.
#include <windows.h>

#pragma once
#include <no_tensors.h>

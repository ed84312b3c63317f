// Stands where the store's headers ask for ATen: they share a header with functions that take tensors, and
// the store calls none of those. So nothing of ATen is generated or compiled; whoever did call one would not link.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Layout.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Logging.h>
#include <c10/util/intrusive_ptr.h>

// What comes along with ATen there, and is used.
#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace torch {
// As in ATen/core/ivalue.h.
class CustomClassHolder : public c10::intrusive_ptr_target {};
} // namespace torch

namespace at {
using namespace c10;

struct DeprecatedTypeProperties {
  TensorOptions options() const;
  std::string toString() const;
};

struct Storage {
  Device device() const;
};

struct Tensor {
  IntArrayRef sizes() const;
  IntArrayRef strides() const;
  int64_t size(int64_t) const;
  void* data_ptr() const;
  Storage storage() const;
  int64_t numel() const;
  TensorOptions options() const;
  std::string toString() const;
  Layout layout() const;
  Device device() const;
  Tensor contiguous() const;
  Tensor view(IntArrayRef) const;
};

using TensorList = ArrayRef<Tensor>;

Tensor cat(TensorList);
Tensor empty(IntArrayRef, TensorOptions = {});
Tensor empty_strided(IntArrayRef, IntArrayRef, TensorOptions);

struct DeviceGuard {
  explicit DeviceGuard(Device);
};
} // namespace at

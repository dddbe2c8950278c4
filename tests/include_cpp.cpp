// A C++ user of the header: the program of include_b.c, with the standard library before and after it.
#include <utility>
#include "include_b.c"
#include <functional>
#include <memory>
#include <vector>

static std::unique_ptr<std::vector<int>> one() {
    std::vector<int> v;
    v.emplace_back(1);
    return std::unique_ptr<std::vector<int>>(
        new std::vector<int>(std::forward<std::vector<int>>(v)));
}
int include_cpp_size();
int include_cpp_size() { return int(one()->size()); }

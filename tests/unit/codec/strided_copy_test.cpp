// Strided copies against a plain loop over all indices.
#include "codec/strided_copy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include "penstock/codec.hpp"

namespace penstock::codec {
namespace {

using Bytes = std::vector<std::byte>;
using Sizes = std::vector<std::int64_t>;

struct Array {
    Bytes memory;
    std::int64_t start = 0;
    Sizes shape;
    Sizes strides;
    std::size_t item = 1;
};

// Advances an index by one, last dimension first; false after the last index.
bool count_up(Sizes& index, const Sizes& shape) {
    for (std::size_t dim = shape.size(); dim-- > 0;) {
        if (++index[dim] < shape[dim]) {
            return true;
        }
        index[dim] = 0;
    }
    return false;
}

// The items in order, copied one by one.
Bytes expected(const Array& array) {
    Bytes result;
    if (std::ranges::find(array.shape, 0) != array.shape.end()) {
        return result;
    }
    Sizes index(array.shape.size());
    do {
        std::int64_t at = array.start;
        for (std::size_t dim = 0; dim < index.size(); ++dim) {
            at += index[dim] * array.strides[dim];
        }
        const std::byte* const from = array.memory.data() + at;
        result.insert(result.end(), from, from + array.item);
    } while (count_up(index, array.shape));
    return result;
}

Bytes copied(const Array& array) {
    std::size_t size = array.item;
    for (const std::int64_t dim : array.shape) {
        size *= static_cast<std::size_t>(dim);
    }
    Bytes result(size);
    strided_copy(result.data(), array.memory.data() + array.start, array.shape, array.strides,
                 array.item);
    return result;
}

class Chance {
public:
    std::int64_t pick(std::int64_t from, std::int64_t to) {
        return std::uniform_int_distribution<std::int64_t>(from, to)(engine_);
    }
    std::size_t below(std::size_t limit) {
        return static_cast<std::size_t>(pick(0, static_cast<std::int64_t>(limit) - 1));
    }

private:
    std::mt19937 engine_{20260901};
};

// Adds a dimension to a slice of `size` items, `bytes` apart: stepped, reversed, or repeated.
void add_dimension(Array& array, std::int64_t size, std::int64_t bytes, Chance& chance) {
    const std::int64_t step = chance.pick(1, 3);
    const std::int64_t taken = (size + step - 1) / step;
    switch (chance.pick(0, 3)) {
        case 0:
            array.start += (taken - 1) * step * bytes;
            array.shape.push_back(taken);
            array.strides.push_back(-step * bytes);
            break;
        case 1:
            array.shape.push_back(chance.pick(0, 3));
            array.strides.push_back(0);
            break;
        default:
            array.shape.push_back(taken);
            array.strides.push_back(step * bytes);
    }
}

// A random slice with its dimensions in random order.
Array random_array(Chance& chance) {
    constexpr std::array<std::size_t, 8> kItems{1, 2, 4, 8, 16, 3, 12, 40};
    Array array;
    array.item = kItems[chance.below(kItems.size())];
    auto bytes = static_cast<std::int64_t>(array.item);
    const std::size_t dims = chance.below(6);
    for (std::size_t dim = 0; dim < dims; ++dim) {
        const std::int64_t size = chance.pick(1, 6);
        add_dimension(array, size, bytes, chance);
        bytes *= size;
    }
    array.memory.resize(static_cast<std::size_t>(bytes));
    for (std::byte& byte : array.memory) {
        byte = static_cast<std::byte>(chance.pick(0, 255));
    }
    for (std::size_t dim = dims; dim > 1; --dim) {
        const std::size_t other = chance.below(dim);
        std::swap(array.shape[dim - 1], array.shape[other]);
        std::swap(array.strides[dim - 1], array.strides[other]);
    }
    return array;
}

TEST(StridedCopy, RandomSlicesEqualThePlainLoop) {
    Chance chance;
    for (int round = 0; round < 5000; ++round) {
        const Array array = random_array(chance);
        ASSERT_EQ(copied(array), expected(array)) << "round " << round;
    }
}

TEST(StridedCopy, AScalarIsOneItem) {
    const Array array{
        .memory = Bytes(8, std::byte{7}), .start = 0, .shape = {}, .strides = {}, .item = 8};
    EXPECT_EQ(copied(array), array.memory);
}

TEST(StridedCopy, TheMostDimensions) {
    Array array{.memory = Bytes(4, std::byte{1}),
                .start = 0,
                .shape = Sizes(kMaxDims, 1),
                .strides = Sizes(kMaxDims, 12345),
                .item = 2};
    array.shape[40] = 2;
    array.strides[40] = 2;
    EXPECT_EQ(copied(array), array.memory);
    array.shape[40] = 1;
    for (const std::size_t dim : {0U, 31U, 63U}) {
        array.shape[dim] = 2;
        array.strides[dim] = 0;
    }
    EXPECT_EQ(copied(array), Bytes(16, std::byte{1}));
}

}  // namespace
}  // namespace penstock::codec

// Checking a whole message: depth and bodies of extensions; names of faults and dtypes.
#include <gtest/gtest.h>

#include <vector>

#include "penstock/codec.hpp"

namespace penstock::codec {
namespace {

template <typename Write>
Fault check_of(Write write) {
    MessageWriter message;
    write(message.structure());
    EXPECT_EQ(message.structure().fault(), Fault::None);
    std::vector<std::byte> room(message.nbytes());
    message.write(room.data());
    return check(room);
}

Fault check_nested_lists(unsigned depth) {
    return check_of([&](Writer& out) {
        for (unsigned i = 0; i < depth; ++i) {
            out.array(1);
        }
        out.nil();
    });
}

Fault check_nested_tuples(unsigned depth) {
    return check_of([&](Writer& out) {
        std::vector<std::size_t> marks;
        for (unsigned i = 0; i < depth; ++i) {
            marks.push_back(out.begin_extension(Extension::Tuple));
            out.array(1);
        }
        out.nil();
        for (; !marks.empty(); marks.pop_back()) {
            out.end_extension(marks.back());
        }
    });
}

TEST(Check, DepthIsLimited) {
    EXPECT_EQ(check_nested_lists(kMaxDepth), Fault::None);
    EXPECT_EQ(check_nested_lists(kMaxDepth + 1), Fault::TooDeep);
    EXPECT_EQ(check_nested_lists(1'000'000), Fault::TooDeep);
    EXPECT_EQ(check_nested_tuples(kMaxDepth), Fault::None);
    EXPECT_EQ(check_nested_tuples(kMaxDepth + 1), Fault::TooDeep);
}

TEST(Check, ExactlyOneValue) {
    EXPECT_EQ(check_of([](Writer&) {}), Fault::Truncated);
    EXPECT_EQ(check_of([](Writer& out) {
                  out.nil();
                  out.nil();
              }),
              Fault::Trailing);
}

// An ext with the body that `write` writes.
template <typename Write>
Fault check_body(Extension type, Write write) {
    return check_of([&](Writer& out) {
        const std::size_t mark = out.begin_extension(type);
        write(out);
        out.end_extension(mark);
    });
}

auto zeros(std::size_t count) {
    return [count](Writer& out) {
        out.array(count);
        for (std::size_t i = 0; i < count; ++i) {
            out.integer(0);
        }
    };
}

TEST(Check, BodiesOfExtensions) {
    const auto nothing = [](Writer&) {};
    const auto nil = [](Writer& out) { out.nil(); };
    const auto code = [](int number) { return [number](Writer& out) { out.integer(number); }; };
    EXPECT_EQ(check_body(Extension::BigInt, nothing), Fault::None);
    EXPECT_EQ(check_body(Extension::ByteArray, nil), Fault::None);
    EXPECT_EQ(check_body(Extension::Tuple, zeros(3)), Fault::None);
    EXPECT_EQ(check_body(Extension::Tuple, nothing), Fault::BadExtension);
    EXPECT_EQ(check_body(Extension::Tuple, nil), Fault::BadExtension);
    EXPECT_EQ(check_body(Extension::Complex, nil), Fault::BadExtension);
    EXPECT_EQ(check_body(Extension::OutOfBand, zeros(2)), Fault::BadTensor);
    EXPECT_EQ(check_body(Extension::OutOfBand, zeros(3)), Fault::BadExtension);
    EXPECT_EQ(check_body(Extension::Tensor, zeros(2)), Fault::BadTensor);
    EXPECT_EQ(check_body(Extension::Tensor, nothing), Fault::BadExtension);
    EXPECT_EQ(check_body(Extension::NumPyScalar, nothing), Fault::BadExtension);
    EXPECT_EQ(check_body(Extension::NumPyScalar, code(1)), Fault::BadExtension);
    EXPECT_EQ(check_body(Extension::NumPyScalar, code(99)), Fault::UnknownDType);
    EXPECT_EQ(check_body(Extension::DescribedScalar, zeros(2)), Fault::BadExtension);
    EXPECT_EQ(check_body(static_cast<Extension>(77), nothing), Fault::UnknownExtension);
}

TEST(Check, BodiesOfDataclasses) {
    const auto named = [](auto write_fields) {
        return check_body(Extension::Dataclass, [&](Writer& out) {
            out.array(2);
            out.text("module.Class");
            write_fields(out);
        });
    };
    EXPECT_EQ(named([](Writer& out) { out.map(0); }), Fault::None);
    EXPECT_EQ(named([](Writer& out) { out.array(0); }), Fault::BadExtension);
    EXPECT_EQ(named([](Writer&) {}), Fault::BadExtension);
    EXPECT_EQ(check_body(Extension::Dataclass, zeros(2)), Fault::BadExtension);
}

TEST(TensorReference, HasAnIndexAndAnOptionalDescr) {
    const auto reference = [](std::initializer_list<int> values, std::size_t descr_size) {
        std::vector<std::byte> body;
        for (const int value : values) {
            body.push_back(static_cast<std::byte>(value));
        }
        std::uint64_t index = 77;
        std::span<const std::byte> descr;
        const Fault fault = tensor_reference(body, index, descr);
        EXPECT_TRUE(fault != Fault::None || (index == 5 && descr.size() == descr_size));
        return fault;
    };
    EXPECT_EQ(reference({5}, 0), Fault::None);
    EXPECT_EQ(reference({0x92, 5, 0xa1, 'x'}, 2), Fault::None);
    EXPECT_EQ(reference({}, 0), Fault::BadExtension);
    EXPECT_EQ(reference({0xff}, 0), Fault::BadExtension);
    EXPECT_EQ(reference({5, 5}, 0), Fault::BadExtension);
    EXPECT_EQ(reference({0x92, 5}, 0), Fault::BadExtension);
    EXPECT_EQ(reference({0x92, 5, 1, 1}, 0), Fault::BadExtension);
    EXPECT_EQ(reference({0x93, 5, 1, 1}, 0), Fault::BadExtension);
    EXPECT_EQ(reference({0x92, 5, 0x92, 1}, 0), Fault::BadExtension);
}

TEST(Fault, EachHasItsSentenceAndItsError) {
    for (int code = 0; code <= static_cast<int>(Fault::TooLarge); ++code) {
        EXPECT_NE(sentence(static_cast<Fault>(code)), "an unknown fault");
    }
    EXPECT_EQ(error_code(Fault::None), ErrorCode::Ok);
    EXPECT_EQ(error_code(Fault::Truncated), ErrorCode::Corrupt);
    EXPECT_EQ(error_code(Fault::OtherVersion), ErrorCode::Incompatible);
    EXPECT_EQ(error_code(Fault::UnknownDType), ErrorCode::Incompatible);
    EXPECT_EQ(error_code(Fault::UnknownExtension), ErrorCode::Incompatible);
    EXPECT_EQ(error_code(Fault::TooLarge), ErrorCode::TooLarge);
}

TEST(DType, NamesAndSizes) {
    EXPECT_EQ(name(DType::Bool), "bool");
    EXPECT_EQ(name(DType::BFloat16), "bfloat16");
    EXPECT_EQ(name(DType::Float8E4M3B11FNUZ), "float8_e4m3b11fnuz");
    EXPECT_EQ(item_size(DType::Complex128), 16U);
    EXPECT_EQ(item_size(DType::BFloat16), 2U);
    EXPECT_EQ(item_size(DType::Described), 0U);
    EXPECT_EQ(item_size(static_cast<DType>(0)), 0U);
    EXPECT_EQ(item_size(static_cast<DType>(200)), 0U);
    EXPECT_EQ(static_cast<int>(DType::Float8E4M3B11FNUZ), 23);
}

}  // namespace
}  // namespace penstock::codec

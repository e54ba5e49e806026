#include "dead_letters.hpp"

#include "errors.hpp"

namespace penstock::py {
namespace {

const char* name_of(Format format) noexcept {
    switch (format) {
        case Format::Bytes:
            return "bytes";
        case Format::Pickle:
            return "pickle";
        default:
            return "typed";
    }
}

nb::dict to_dict(const DeadLetter& letter) {
    nb::dict dict;
    dict["sequence"] = letter.sequence;
    dict["producer"] = letter.producer;
    dict["deliveries"] = letter.deliveries;
    dict["nbytes"] = letter.nbytes;
    dict["age"] = letter.age;
    dict["format"] = name_of(letter.format);
    return dict;
}

}  // namespace

nb::list dead_letters_to_list(const Result<std::vector<DeadLetter>>& letters) {
    check(letters.status());
    nb::list list;
    for (const DeadLetter& letter : *letters) {
        list.append(to_dict(letter));
    }
    return list;
}

nb::bytes dead_letter_to_bytes(const Result<std::vector<std::byte>>& copy) {
    check(copy.status());
    return nb::bytes(copy->data(), copy->size());
}

std::uint64_t moved(const Result<std::uint64_t>& count) {
    check(count.status());
    return *count;
}

}  // namespace penstock::py

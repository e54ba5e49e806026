// A descr is parsed and composed by hand: nothing received is evaluated, and NumPy only gets type
// strings of the plain kinds.
#include "codec_descr.hpp"

#include <algorithm>
#include <string>
#include <string_view>

#include "codec_fault.hpp"
#include "codec_numpy.hpp"
#include "codec_refusal.hpp"
#include "codec_stack.hpp"

namespace penstock::py {

using codec::DType;
using codec::Kind;
using codec::Reader;
using codec::Token;

namespace {

constexpr unsigned kMaxNesting = 32;  // records inside records
constexpr std::string_view kPlainKinds = "biufcSUVMm";

std::string_view text_of(nb::handle text) {
    Py_ssize_t size = 0;
    const char* const data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (data == nullptr) {
        nb::raise_python_error();
    }
    return {data, static_cast<std::size_t>(size)};
}

Refusal refused_dtype(nb::handle dtype, const char* why) {
    return Refusal(" is an array of dtype " + said(dtype) + ", which " + why);
}

// --- writing ------------------------------------------------------------------------------------

class DescrWriter {
public:
    explicit DescrWriter(codec::Writer& out) : out_(out) {}

    void write(nb::handle dtype, unsigned depth) {
        if (depth == kMaxNesting) {
            throw refused_dtype(dtype, "is nested too deeply");
        }
        check_stack("cannot encode the value", depth);
        if (const DType code = dtype_code(dtype); code != DType::Described) {
            out_.natural(static_cast<std::uint64_t>(code));
        } else if (const nb::object sub = dtype.attr("subdtype"); !sub.is_none()) {
            subarray(sub, depth);
        } else if (!nb::object(dtype.attr("names")).is_none()) {
            record(dtype, depth);
        } else {
            plain(dtype);
        }
    }

private:
    void plain(nb::handle dtype) {
        if (!is_plain_dtype(dtype)) {
            throw refused_dtype(dtype, "the typed codec does not know");
        }
        if (nb::cast<std::int64_t>(dtype.attr("itemsize")) == 0) {
            throw refused_dtype(dtype, "has items of no size");
        }
        out_.text(text_of(nb::object(dtype.attr("str"))));
    }

    void subarray(nb::handle base_and_shape, unsigned depth) {
        out_.array(2);
        write(nb::object(base_and_shape[0]), depth + 1);
        const nb::tuple shape(base_and_shape[1]);
        out_.array(shape.size());
        for (const nb::handle size : shape) {
            out_.integer(nb::cast<std::int64_t>(size));
        }
    }

    void record(nb::handle dtype, unsigned depth) {
        const nb::tuple names(dtype.attr("names"));
        const nb::object fields = dtype.attr("fields");
        if (names.size() == 0) {
            throw refused_dtype(dtype, "has no fields");
        }
        out_.array(5);
        out_.array(names.size());
        for (const nb::handle name : names) {
            out_.text(text_of(name));
        }
        out_.array(names.size());
        for (const nb::handle name : names) {
            const nb::tuple field(fields[name]);
            if (field.size() != 2) {
                throw refused_dtype(dtype, "has titles, which are not sent");
            }
            write(field[0], depth + 1);
        }
        out_.array(names.size());
        for (const nb::handle name : names) {
            out_.integer(nb::cast<std::int64_t>(nb::object(fields[name][1])));
        }
        out_.integer(nb::cast<std::int64_t>(dtype.attr("itemsize")));
        out_.boolean(nb::cast<bool>(dtype.attr("isalignedstruct")));
    }

    codec::Writer& out_;
};

// --- reading ------------------------------------------------------------------------------------

[[noreturn]] void raise_bad_descr() {
    raise_corrupt("a dtype's description makes no sense");
}

Token expect(Reader& in, Kind kind) {
    Token token;
    if (!in.next(token) || token.kind != kind) {
        raise_bad_descr();
    }
    return token;
}

// "<M8[ns]", "|S10", ">i4": byte order, kind, size, and a unit for times.
bool is_plain_type_string(std::string_view text) {
    if (text.size() < 3 || std::string_view("<>|=").find(text[0]) == std::string_view::npos ||
        kPlainKinds.find(text[1]) == std::string_view::npos) {
        return false;
    }
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    const auto is_unit = [&](char c) {
        return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '/';
    };
    const std::string_view rest = text.substr(2);
    const bool has_unit = (text[1] == 'M' || text[1] == 'm') && rest.back() == ']';
    const std::size_t bracket = has_unit ? rest.find('[') : rest.size();
    if (bracket == std::string_view::npos || bracket == 0) {
        return false;
    }
    const std::string_view unit =
        has_unit ? rest.substr(bracket + 1, rest.size() - bracket - 2) : std::string_view{};
    const std::string_view size = rest.substr(0, bracket);
    return std::ranges::all_of(size, is_digit) && std::ranges::all_of(unit, is_unit);
}

class DescrReader {
public:
    explicit DescrReader(Reader& in)
        : in_(in), make_(nb::module_::import_("numpy").attr("dtype")) {}

    nb::object read(unsigned depth) {
        Token token;
        if (depth == kMaxNesting || !in_.next(token)) {
            raise_bad_descr();
        }
        check_stack("cannot decode a message", depth);
        if (token.kind == Kind::Integer && token.integer > 0 && token.integer < 255) {
            return dtype_of_code(static_cast<DType>(token.integer));
        }
        if (token.kind == Kind::Text) {
            return plain(token.text());
        }
        if (token.kind == Kind::Array && token.count == 2) {
            return subarray(depth);
        }
        if (token.kind == Kind::Array && token.count == 5) {
            return record(depth);
        }
        raise_bad_descr();
    }

private:
    nb::object call(nb::handle argument) {
        return made_of_bytes(PyObject_CallOneArg(make_.ptr(), argument.ptr()));
    }

    nb::object plain(std::string_view text) {
        if (!is_plain_type_string(text)) {
            raise_bad_descr();
        }
        nb::object dtype = call(nb::str(text.data(), text.size()));
        if (!is_plain_dtype(dtype)) {
            raise_bad_descr();
        }
        return dtype;
    }

    nb::object subarray(unsigned depth) {
        const nb::object base = read(depth + 1);
        const std::size_t dims = expect(in_, Kind::Array).count;
        nb::list shape;
        for (std::size_t i = 0; i < dims; ++i) {
            shape.append(expect(in_, Kind::Integer).integer);
        }
        return call(nb::make_tuple(base, nb::tuple(shape)));
    }

    nb::object record(unsigned depth) {
        nb::list names;
        nb::list formats;
        nb::list offsets;
        const std::size_t count = expect(in_, Kind::Array).count;
        for (std::size_t i = 0; i < count; ++i) {
            const std::string_view name = expect(in_, Kind::Text).text();
            names.append(made_of_bytes(
                PyUnicode_DecodeUTF8(name.data(), static_cast<Py_ssize_t>(name.size()), nullptr)));
        }
        expect_count(count);
        for (std::size_t i = 0; i < count; ++i) {
            formats.append(read(depth + 1));
        }
        expect_count(count);
        for (std::size_t i = 0; i < count; ++i) {
            offsets.append(expect(in_, Kind::Integer).integer);
        }
        nb::dict parts;
        parts["names"] = names;
        parts["formats"] = formats;
        parts["offsets"] = offsets;
        parts["itemsize"] = expect(in_, Kind::Integer).integer;
        parts["aligned"] = expect(in_, Kind::Boolean).boolean;
        return call(parts);
    }

    void expect_count(std::size_t count) {
        if (expect(in_, Kind::Array).count != count) {
            raise_bad_descr();
        }
    }

    Reader& in_;
    nb::object make_;
};

}  // namespace

void write_descr(nb::handle dtype, codec::Writer& out) {
    DescrWriter(out).write(dtype, 0);
}

nb::object read_descr(std::span<const std::byte> descr) {
    Reader in(descr);
    nb::object dtype = DescrReader(in).read(0);
    if (!in.at_end() || nb::cast<bool>(dtype.attr("hasobject")) ||
        nb::cast<std::int64_t>(dtype.attr("itemsize")) <= 0) {
        raise_bad_descr();
    }
    return dtype;
}

}  // namespace penstock::py

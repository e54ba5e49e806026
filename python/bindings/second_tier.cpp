// Parser of the options of a second tier, and the check of fetched values.
#include "second_tier.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <exception>
#include <initializer_list>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "errors.hpp"
#include "remote/redis_connection.hpp"
#include "store_view.hpp"

namespace penstock::py {
namespace {

using Kind = FetchResult::Kind;

// Enumerator of `all` whose name was given.
template <typename Choice>
Choice parse_choice(nb::handle given, const char* what, std::initializer_list<Choice> all) {
    const std::string name = parse_text(given, what);
    std::string sentence = std::string(what) + " is '" + name + "': give one of";
    for (const Choice known : all) {
        if (name == to_string(known)) {
            return known;
        }
        sentence.append(" '").append(to_string(known)).append("'");
    }
    raise_error(ErrorCode::InvalidArgument, sentence);
}

TierPolicy parse_policy(nb::handle policy) {
    return parse_choice(policy, "policy",
                        {TierPolicy::WriteBack, TierPolicy::WriteThrough, TierPolicy::ReadOnly});
}

WhenFull parse_when_full(nb::handle when_full) {
    return parse_choice(when_full, "when_full", {WhenFull::Drop, WhenFull::Wait});
}

std::string sentence_of(const nb::python_error& error) {
    // str() of the exception, because error.what() is a traceback.
    const nb::object text = nb::steal(PyObject_Str(error.value().ptr()));
    const char* const sentence = text.is_valid() ? PyUnicode_AsUTF8(text.ptr()) : nullptr;
    if (sentence == nullptr) {
        PyErr_Clear();
        return {};
    }
    return sentence;
}

}  // namespace

std::optional<SecondTierOptions> parse_second_tier(nb::handle given) {
    if (given.is_none()) {
        return std::nullopt;
    }
    const auto get = [&](const char* name) { return nb::object(given.attr(name)); };
    const auto seconds = [&](const char* name) { return parse_seconds(get(name), name); };
    SecondTierOptions options;
    options.urls = nb::cast<std::vector<std::string>>(get("urls"));
    options.prefix = parse_text(get("prefix"), "prefix");
    options.policy = parse_policy(get("policy"));
    options.connect_timeout = seconds("connect_timeout");
    options.request_timeout = seconds("request_timeout");
    options.retry_first = seconds("retry_first");
    options.retry_most = seconds("retry_most");
    options.max_inflight_bytes = parse_bytes(get("max_inflight"), "max_inflight");
    options.when_full = parse_when_full(get("when_full"));
    options.full_timeout = seconds("full_timeout");
    options.writers = parse_small(get("writers"), "writers");
    options.part_bytes = parse_bytes(get("part"), "part");
    if (!get("ttl").is_none()) {
        options.ttl = std::chrono::ceil<std::chrono::milliseconds>(seconds("ttl"));
    }
    options.delete_corrupt = parse_flag(get("delete_corrupt"), "delete_corrupt");
    return options;
}

FetchResult check_fetched(const FetchedValue& value, Codec codec) {
    if (value.format == Format::Pickle && codec != Codec::Pickle) {
        return {Kind::Incompatible,
                "it is a pickle, which is only read where that was asked for: attach with "
                "codec='pickle' if you trust who put it, and the server"};
    }
    try {
        check_object(value.format, value.bytes, value.meta, codec);
    } catch (const nb::python_error& error) {
        if (!error.matches(PyExc_Exception)) {
            throw;  // Ctrl-C during the import of a module
        }
        // Other errors may have their cause in this reader: a missing module, or too little stack
        // (TooLarge).
        const bool is_corrupt = error.matches(error_class("Corrupt"));
        return {is_corrupt ? Kind::Corrupt : Kind::Incompatible, sentence_of(error)};
    } catch (const Error& error) {
        return {error.code() == ErrorCode::Corrupt ? Kind::Corrupt : Kind::Incompatible,
                error.what()};
    } catch (const std::exception& error) {
        return {Kind::Incompatible, error.what()};
    }
    return {};
}

void bind_second_tier(nb::module_& module) {
    module.def("has_redis", &detail::has_redis,
               "Whether this was built with hiredis, without which there is no second tier.");
}

}  // namespace penstock::py

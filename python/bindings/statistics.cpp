// The dataclasses of statistics.
#include "statistics.hpp"

#include "codec/array_pool.hpp"
#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "penstock/trajectories.hpp"

namespace penstock::py {
namespace {

// As the stub has it.
template <typename Value>
std::string type_of(const Value& value) {
    if constexpr (requires { value.has_value(); }) {
        return type_of(typename Value::value_type{}) + " | None";
    } else if constexpr (requires(Value items) { items.emplace_back(); }) {
        return "list[" + type_of(typename Value::value_type{}) + "]";
    } else if constexpr (std::is_same_v<Value, Eviction>) {
        return R"(Literal["sieve", "fifo", "lru", "none"])";
    } else if constexpr (std::is_same_v<Value, WaitPolicy>) {
        return R"(Literal["balanced", "latency", "frugal"])";
    } else if constexpr (std::is_same_v<Value, CircuitState>) {
        return R"(Literal["closed", "partial", "open"])";
    } else {
        return nb::str(to_python(value).type().attr("__name__")).c_str();
    }
}

// Rows have a name, kind, unit, type and sentence. The sentences are docstrings because they stand
// in __slots__.
nb::object make_class(const char* name, nb::dict members, const nb::list& table) {
    nb::list fields;
    nb::dict slots;
    for (const nb::handle row : table) {
        fields.append(nb::make_tuple(row[0], row[3]));
        slots[row[0]] = row[4];
    }
    const nb::module_ dataclasses = nb::module_::import_("dataclasses");
    members["_table"] = nb::tuple(table);
    members["__slots__"] = slots;
    members["asdict"] = dataclasses.attr("asdict");
    members["__reduce__"] = nb::cpp_function(
        [](nb::handle self) {
            nb::list values;
            for (const nb::handle row : self.type().attr("_table")) {
                values.append(self.attr(row[0]));
            }
            return nb::make_tuple(self.type(), nb::tuple(values));
        },
        nb::is_method());
    return dataclasses.attr("make_dataclass")(name, fields, nb::arg("namespace") = members,
                                              nb::arg("frozen") = true);
}

// In the module `home` for users. `metrics`: how the names of its metrics go on after "penstock_".
template <typename Stats>
void bind_class(nb::module_& module, const char* name, const char* home, const char* metrics,
                const char* help) {
    nb::list table;
    Stats::for_each([&](const auto& row) {
        table.append(nb::make_tuple(row.name, row.kind.name, row.kind.unit,
                                    type_of(Stats{}.*row.member).c_str(), row.help));
    });
    nb::dict members;
    members["__doc__"] = help;
    members["_metrics"] = metrics;
    const nb::object made = make_class(name, members, table);
    made.attr("__module__") = home;  // make_dataclass() sets another one, from Python 3.12 on
    module.attr(name) = made;
    statistics_class<Stats> = made;
}

}  // namespace

void bind_statistics(nb::module_& module) {
    bind_class<BroadcastStats>(
        module, "BroadcastStats", "penstock.state", "broadcast",
        "Counters of one handle, or of a whole Broadcast seen from outside.");
    bind_class<QueueStats>(module, "QueueStats", "penstock.state", "queue",
                           "Counters of a whole queue since its creation, and its present state.");
    bind_class<TierStats>(module, "TierStats", "penstock.state", "second_tier",
                          "Requests of one Store to its second tier since it was made.");
    bind_class<StoreStats>(
        module, "StoreStats", "penstock.state", "store",
        "Counters of a whole store since its creation, and its present state.\n\n"
        "``used_bytes + free_bytes == capacity``, and ``used_bytes`` is the sum of the five after "
        "``free_bytes``.");
    bind_class<codec::MemoryStats>(
        module, "MemoryStats", "penstock.state", "memory",
        "Memory of this process for the arrays that it receives; see ``penstock.memory_stats()``.");
    bind_class<EnvironmentStats>(
        module, "EnvironmentStats", "penstock.trajectories.state", "environment",
        "One environment; without a name, those that have left and whose groups remain.");
    bind_class<TrajectoryStats>(module, "TrajectoryStats", "penstock.trajectories.state",
                                "trajectories",
                                "Counters of the whole queue, and its present participants.");
}

}  // namespace penstock::py

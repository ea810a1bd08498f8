# Medians and ratios of benches/mounted.sh, as a table or as JSON (-v format=table|json).
# Input: step, round, target, name, seconds, seconds until durable, CPU seconds of the daemon;
# or: fact, round, target, name, value.

function median(values, count,    i, j, keep) {
    for (i = 2; i <= count; i++) {
        keep = values[i]
        for (j = i - 1; j >= 1 && values[j] > keep; j--) values[j + 1] = values[j]
        values[j + 1] = keep
    }
    return count % 2 ? values[(count + 1) / 2] : (values[count / 2] + values[count / 2 + 1]) / 2
}

function of_column(target, name, column,    list, n, i) {
    n = runs[target, name]
    for (i = 1; i <= n; i++) list[i] = value[target, name, column, i]
    return n ? median(list, n) : ""
}

function number(x, digits) { return x == "" ? "-" : sprintf("%." digits "f", x) }

# How fast StrataFS is, the other one being 1: times the other way round.
function ratio(other, ours) { return other == "" || ours == "" || ours <= 0 ? "" : other / ours }

function rate(name, seconds) {
    if (seconds == "" || seconds <= 0) return ""
    if (name ~ /^dd_/) return sprintf("%.0f MB/s", dd_mib * 1.048576 / seconds)
    if (name ~ /^(rsync_|cp_|read_)/) return sprintf("%.0f files/s", files / seconds)
    if (name ~ /^many_/) return sprintf("%.0f files/s", many / seconds)
    return ""
}

function json_number(x) { return x == "" ? "null" : x + 0 }

$1 == "step" {
    if (!($4 in seen_step)) { seen_step[$4] = 1; step[++steps] = $4 }
    i = ++runs[$3, $4]
    value[$3, $4, "s", i] = $5; value[$3, $4, "durable", i] = $6; value[$3, $4, "cpu", i] = $7
}
# Round 0 is the step with many files: its facts stand apart.
$1 == "fact" && $5 != "" {
    name = $2 == 0 ? "many_" $4 : $4
    if (!(name in seen_fact)) { seen_fact[name] = 1; fact[++facts] = name }
    i = ++runs[$3, name]
    value[$3, name, "s", i] = $5
}

function table(    i, n, e, ed, s, sd, f, row) {
    printf "%s; %d files, %.0f MB; dd %d MiB; ", machine, files, tree_bytes / 1e6, dd_mib
    printf "medians of %d rounds\n", rounds
    print "x: speed of StrataFS where the other one is 1; CPU: of the mounted process"
    row = "%-17s %8s %8s %8s  %7s %7s | %8s %8s %7s | %7s  %s\n"
    printf "\n" row, "", "until", "it", "returns", "", "", "until", "durable", "", "", ""
    printf row, "step", "ext4 s", "strata s", "floor s", "x ext4", "x floor", \
        "ext4 s", "strata s", "x ext4", "CPU s", "StrataFS rate"
    for (i = 1; i <= steps; i++) {
        n = step[i]
        e = of_column("ext4", n, "s"); ed = of_column("ext4", n, "durable")
        s = of_column("strata", n, "s"); sd = of_column("strata", n, "durable")
        f = of_column("floor", n, "s")
        printf row, n, number(e, 3), number(s, 3), number(f, 3), number(ratio(e, s), 2), \
            number(ratio(f, s), 2), number(ed, 3), number(sd, 3), number(ratio(ed, sd), 2), \
            number(of_column("strata", n, "cpu"), 2), rate(n, s)
    }
    print ""
    for (i = 1; i <= facts; i++) printf "%-28s %18s\n", fact[i], of_column("strata", fact[i], "s")
}

function json(    i, t, n, count, names) {
    printf "{\"machine\": \"%s\", \"files\": %d, \"tree_bytes\": %.0f, ", machine, files, tree_bytes
    printf "\"dd_mib\": %d, \"many\": %d, \"rounds\": %d,\n \"steps\": [", dd_mib, many, rounds
    count = split("ext4 strata floor", names, " ")
    for (i = 1; i <= steps; i++) {
        printf "%s\n  {\"name\": \"%s\"", (i > 1 ? "," : ""), step[i]
        for (t = 1; t <= count; t++) {
            n = names[t]
            if (!runs[n, step[i]]) continue
            printf ", \"%s\": {\"seconds\": %s, ", n, json_number(of_column(n, step[i], "s"))
            printf "\"durable_seconds\": %s, ", json_number(of_column(n, step[i], "durable"))
            printf "\"daemon_cpu_seconds\": %s}", json_number(of_column(n, step[i], "cpu"))
        }
        printf "}"
    }
    printf "\n ],\n \"facts\": {"
    for (i = 1; i <= facts; i++)
        printf "%s\n  \"%s\": %.10g", (i > 1 ? "," : ""), fact[i], of_column("strata", fact[i], "s")
    print "\n }}"
}

END { if (format == "json") json(); else table() }

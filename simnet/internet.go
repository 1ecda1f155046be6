package simnet

// Internet is the built-in matrix: round trips between ten cities on four continents, with jitter of at
// most 30 %, 10 % on average.
//
// The figures are those that IBM Cloud publishes of its network, "Average latency (ms)", inter-region,
// 27 July to 25 August 2024 (repository ibm-cloud-docs/vpc, _include-segments/network-latency.md), rows
// to columns; a city's distance to itself is that between two zones of one region there. They are of
// data centres: give a machine at home a HostSpec.Mile. The jitter is ours.
func Internet() *Latency {
	l, err := ParseLatencyCSV(internet, 300)
	if err != nil {
		panic(err) // a test reads it
	}
	return l
}

const internet = `
,          dallas, toronto, washington, frankfurt, london, madrid, osaka, sydney, tokyo, sao-paulo
dallas,         2,      34,         31,       123,    113,    119,   150,    186,   143,       146
toronto,       34,       2,         19,        93,     82,    108,   168,    215,   162,       129
washington,    31,      19,          2,        91,     75,     87,   172,    214,   164,       118
frankfurt,    123,      93,         91,         2,     13,     29,   232,    250,   233,       198
london,       113,      83,         75,        13,      2,     27,   244,    261,   243,       188
madrid,       122,     106,         88,        29,     27,      2,   257,    275,   258,       209
osaka,        150,     169,        172,       231,    243,    257,     2,    122,     9,       293
sydney,       186,     214,        214,       249,    261,    275,   122,      2,   115,       328
tokyo,        143,     162,        166,       233,    244,    256,     9,    115,     2,       284
sao-paulo,    144,     128,        119,       196,    187,    208,   291,    328,   283,         2
`

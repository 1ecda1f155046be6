package main

import (
	"fmt"
	"image/color"
	"os"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"cepa/simnet/flowstudy"
)

// marks are how rules look.
var marks = []struct {
	color color.NRGBA
	shape draw.GlyphDrawer
}{
	{color.NRGBA{0x1f, 0x4e, 0xa8, 255}, draw.CircleGlyph{}},
	{color.NRGBA{0xd9, 0x5f, 0x02, 255}, draw.PyramidGlyph{}},
	{color.NRGBA{0x1b, 0x9e, 0x77, 255}, draw.BoxGlyph{}},
	{color.NRGBA{0xe7, 0x29, 0x8a, 255}, draw.CrossGlyph{}},
	{color.NRGBA{0x66, 0x66, 0x66, 255}, draw.PlusGlyph{}},
	{color.NRGBA{0xa6, 0x76, 0x1d, 255}, draw.RingGlyph{}},
}

// drawPlot has a line for each scenario that has a delay, with the median over seeds of each rule on it.
func drawPlot(results []*flowstudy.Result, rules []string, path string) error {
	p := plot.New()
	p.BackgroundColor = color.White
	p.X.Label.Text, p.X.Min = "delay in queues, median, ms", 3
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.ConstantTicks([]plot.Tick{{Value: 3}, {Value: 10, Label: "10"}, {Value: 30}, {Value: 100, Label: "100"}, {Value: 300}, {Value: 1000, Label: "1000"}, {Value: 3000}, {Value: 10000, Label: "10000"}})
	p.Legend.Top, p.Legend.TextStyle.Font.Size = true, 9
	p.Add(plotter.NewGrid())
	var names []string
	for _, s := range flowstudy.Scenarios() {
		if slices.ContainsFunc(rules, func(rule string) bool { return delay(results, s.Name, rule) > 0 }) {
			names = append(names, s.Name)
		}
	}
	slices.Reverse(names) // the first is on top
	if len(names) == 0 {
		return fmt.Errorf("plotting %s: no scenario has a delay", path)
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -0.5, float64(len(names))+0.5
	for i, rule := range rules {
		var points plotter.XYs
		for y, name := range names {
			if x := delay(results, name, rule); x > 0 {
				points = append(points, plotter.XY{X: x, Y: float64(y)})
			}
		}
		if len(points) == 0 {
			continue
		}
		s, err := plotter.NewScatter(points)
		if err != nil {
			return err
		}
		m := marks[i%len(marks)]
		s.Color, s.Shape, s.Radius = m.color, m.shape, vg.Points(3.5)
		p.Add(s)
		p.Legend.Add(rule, s)
	}
	canvas := vgsvg.New(vg.Points(560), vg.Points(float64(60+18*len(names))))
	p.Draw(draw.Crop(draw.New(canvas), vg.Points(10), -vg.Points(4), 0, 0))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// delay is the median over seeds of a scenario's delay under a rule; 0 if there is none.
func delay(results []*flowstudy.Result, scenario, rule string) float64 {
	var list []float64
	for _, r := range results {
		if r.Scenario != scenario || r.Rule != rule {
			continue
		}
		for _, v := range r.Values {
			if strings.HasSuffix(v.Name, "delay p50") || strings.HasPrefix(v.Name, "delay at") {
				list = append(list, v.X)
				break
			}
		}
	}
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}
